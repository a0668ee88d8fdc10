//! Emulated hosts on one machine, each with its own Docker Engine; scenarios over them.
