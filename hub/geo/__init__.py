"""Places and fences. shapely is imported here and nowhere else, and this only where it is wanted."""
