"""What sub-networks are worth and what they cost, in tables that say which depth to choose.

subnets     tests all depths of a checkpoint: metrics, GFLOPs and a rough latency (`subnets.json`)
profile     measures what each depth costs on this machine until it is steady (`profile.json`)
select      chooses the depth for a budget from such a table
table       the columns of these tables, and how they are read, checked, joined and printed
flops, memory, energy, timing   one measurement each
prediction  one batch from preprocessed images to predictions, as it is timed
"""
