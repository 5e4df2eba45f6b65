# How frames are loaded, whatever the data set. The base that uses this gives `train_dataset`, `test_dataset` and
# `test_evaluator`.
train_dataloader = dict(
    dataset="$train_dataset",
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="pseudo_collate"),
)
test_dataloader = dict(
    dataset="$test_dataset",
    batch_size=1,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="pseudo_collate"),
)
test_cfg = dict(type="TestLoop")
val_dataloader = "$test_dataloader"
val_evaluator = "$test_evaluator"
val_cfg = dict(type="ValLoop")
