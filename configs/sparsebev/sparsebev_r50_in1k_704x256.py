# SparseBEV from torchvision's ImageNet weights, 36 epochs.
_base_ = ["./sparsebev_r50_nuimg_704x256.py"]

pretrained = "pretrain/resnet50-0676ba61.pth"
backbone_lr = 0.4
max_epochs = 36
