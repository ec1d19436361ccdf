//! What the fuzz targets call. Each other file of this folder is compiled as a module of the program, beside the private parts
//! that it uses.

pub use crate::audit::fuzzing as records;
pub use crate::event::fuzzing as events;
pub use crate::http::edge::fuzzing as heads;
pub use crate::http::fuzzing::{queries, tokens};
pub use crate::http::tencent::fuzzing as usersig;
pub use crate::intake::fuzzing as counts;
