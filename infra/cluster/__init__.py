"""Where stages that are mapped over instrument-days run: here, in processes, or on Dask."""
