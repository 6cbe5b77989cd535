"""`make demo`: the main job, shown end to end on a private wherryd, without a registry and without leaving anything."""
