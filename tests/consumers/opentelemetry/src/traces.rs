//! Passes the trace context of a request through the outbox. `docs/monitoring.md` shows these functions.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use postrider::TraceParent;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The context of the current span. `None` outside of a span.
pub fn current() -> Option<TraceParent> {
    let context = Span::current().context();
    let span = context.span();
    let ids = span.span_context();
    TraceParent::new(ids.trace_id().to_bytes(), ids.span_id().to_bytes(), ids.trace_flags().to_u8())
}

/// Links a span of the relay to the span that enqueued the mail.
pub fn link(span: &Span, enqueued: TraceParent) {
    let trace_id = TraceId::from_bytes(enqueued.trace_id());
    let span_id = SpanId::from_bytes(enqueued.parent_id());
    let flags = TraceFlags::new(enqueued.flags());
    span.add_link(SpanContext::new(trace_id, span_id, flags, true, TraceState::default()));
}
