//! Pure types shared by every part: ids, spec, host plan, observations, network.
