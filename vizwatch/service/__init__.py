"""The watcher as a service: the transitions of many projects, kept and delivered to sinks.

``vizwatch run CONFIG.toml`` runs it; the README's section "As a service" shows its configuration.
"""
