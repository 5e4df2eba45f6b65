"""The image branch: backbones, necks, and what joins them."""
