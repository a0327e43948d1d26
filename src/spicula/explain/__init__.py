"""Words for nodules: reports from what readers said, and words found again in images; one file a method."""
