"""Face stores: labeled crops in Parquet. `affwild2` and `images` write them, and training reads their row groups."""
