"""Face stores: crops with labels as Parquet. Labelled crops enter (affwild2, manifests); row groups leave."""
