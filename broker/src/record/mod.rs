//! Reading the record: which entries are about what, and the story that they tell. Reads only what
//! it is given, in the order of the log, and decides nothing.

pub mod about;
pub mod story;
pub mod trail;
