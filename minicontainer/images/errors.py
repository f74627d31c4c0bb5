"""What can go wrong with an image."""


class ImageError(Exception):
    """An image that is not to be had; the text says why, and what to do."""
