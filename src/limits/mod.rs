//! Rates and quotas. The caps that stand today live beside what they bound (sessions, rooms, documents, frames); this
//! module is the home of the rates that come with authentication.
