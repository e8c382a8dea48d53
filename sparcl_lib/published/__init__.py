"""What was published: tables as recipes, results, VOC class-set counts, ADE20K class orders.

`tables` imports no torch.
"""
