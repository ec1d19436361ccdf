//! What the fuzz targets call. The other doors stand in the modules whose private parts they use.

pub use crate::audit::fuzzing as records;
pub use crate::event::fuzzing as events;
pub use crate::http::edge::fuzzing as heads;
pub use crate::http::fuzzing::{queries, tokens};
pub use crate::http::tencent::fuzzing as usersig;
