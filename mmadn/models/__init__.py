"""Parts of models that configs name as `mmadn.X`: backbones with adaptive depth, a head, a neck."""
