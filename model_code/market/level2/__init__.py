"""Level-2 order books: wire frames, the book that they rebuild, the table of its best levels."""
