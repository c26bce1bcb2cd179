"""Floor 0: values. Statuses, models, errors and settings, which know nothing of the floors above."""
