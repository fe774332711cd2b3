//! The Web Conferencing Edge.
