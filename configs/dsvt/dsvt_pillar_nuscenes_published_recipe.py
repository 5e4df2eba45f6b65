# The published recipe to the letter: its optimiser never received the packed projections of the attentions, which keep
# their random initialisation. Their gradients still count in the clipped norm.
_base_ = ["./dsvt_pillar_nuscenes.py"]

optim_wrapper = dict(paramwise_cfg=dict(custom_keys={"in_proj": dict(lr_mult=0.0)}))
