"""Floor 3: what users ask for. Listing page by page, and watching a job."""
