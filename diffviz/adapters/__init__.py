"""Foreign ecosystems. Nothing here is imported by diffviz itself."""
