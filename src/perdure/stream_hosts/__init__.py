"""Free-standing streams: host objects, the directory of paths, subscriptions."""
