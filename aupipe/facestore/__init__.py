"""Face stores: crops with labels as Parquet. Labeled crops enter (affwild2, manifests); row groups leave."""
