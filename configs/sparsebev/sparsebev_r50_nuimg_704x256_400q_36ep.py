# SparseBEV with 400 queries, 36 epochs: the published fast one.
_base_ = ["./sparsebev_r50_nuimg_704x256.py"]

num_queries = 400
max_epochs = 36
