"""Files: written whole or not at all, images at the border, and the texts of both languages."""
