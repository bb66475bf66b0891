//! SMTP for postrider.
