//! Pure decisions: state, commands, apply, scheduler, reconcilers, kinds.
