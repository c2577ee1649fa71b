"""Mathematics with no idea of modality: positions, masks, attention, blocks, stacks."""
