//! Real containers, as root: what the program in them sees, and what the host keeps.

mod exec;
mod explain;
mod host;
mod hostile;
mod program;
mod speed;
mod view;
