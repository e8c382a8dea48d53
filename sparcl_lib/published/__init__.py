"""Published numbers as small data files: results, VOC class-set counts, ADE20K class orders."""
