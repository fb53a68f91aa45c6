"""List files: lines, CSV or JSON that name images and labels."""
