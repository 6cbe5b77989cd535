"""The CRI server: wherryd, its spawner and monitors, and the wherry command."""
