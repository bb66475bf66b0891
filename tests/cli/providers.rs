//! A provider with a wrong key, a suspended account or a used-up quota pauses the transport, and no mail is lost.

use std::slice;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::http_server::HttpServer;
use crate::tool::{Tool, wait_until};

const KEY: &str = "K3Y-that-nobody-may-see";

/// A scripted provider. It accepts every request unless `refusal` is set.
struct Provider {
    server: HttpServer,
    refusal: Arc<Mutex<Option<(u16, Value)>>>,
    /// The recipient of each accepted mail.
    accepted: Arc<Mutex<Vec<String>>>,
    name: &'static str,
}

impl Provider {
    /// `accepted_mail` is the response to one mail. `batch` makes the response to a batch from several of them.
    fn with(name: &'static str, accepted_mail: Value, batch: fn(Vec<Value>) -> Value) -> Self {
        let (refusal, accepted) = (Arc::<Mutex<Option<(u16, Value)>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (script_refusal, script_accepted) = (Arc::clone(&refusal), Arc::clone(&accepted));
        let server = HttpServer::with_script(move |request| {
            if let Some(refusal) = script_refusal.lock().unwrap().clone() {
                return refusal;
            }
            let mails = request.as_array().map_or(slice::from_ref(request), Vec::as_slice);
            script_accepted.lock().unwrap().extend(mails.iter().map(recipient));
            let response = if request.is_array() {
                batch(vec![accepted_mail.clone(); mails.len()])
            } else {
                accepted_mail.clone()
            };
            (200, response)
        });
        Self { server, refusal, accepted, name }
    }

    /// <https://postmarkapp.com/developer/api/email-api>
    fn postmark() -> Self {
        let accepted_mail =
            json!({"ErrorCode": 0, "Message": "OK", "MessageID": "b7bc2f4a-e38e-4336-af7d-e6c392c2f817"});
        Self::with("postmark", accepted_mail, Value::Array)
    }

    /// <https://resend.com/docs/api-reference/emails/send-batch-emails>
    fn resend() -> Self {
        let accepted_mail = json!({"id": "49a3999c-0ce1-4ea6-ab68-afcd6dc2e794"});
        Self::with("resend", accepted_mail, |all| json!({"data": all}))
    }

    fn set_refusal(&self, refusal: Option<(u16, Value)>) {
        *self.refusal.lock().unwrap() = refusal;
    }

    fn url(&self) -> String {
        format!("{}://{KEY}@{}", self.name, self.server.host())
    }
}

fn recipient(mail: &Value) -> String {
    let to = mail.get("to").and_then(|to| to.get(0)).or(mail.get("To")).unwrap();
    to.as_str().unwrap().to_owned()
}

/// With a budget of one attempt, one charged attempt makes a delivery a dead letter.
const WORK: [&str; 4] = ["work", "--json", "--attempts", "1"];

fn assert_paused_and_uncharged(provider: &Provider, refusal: (u16, Value), reason: &str) {
    let what = format!("{} answers {refusal:?}", provider.name);
    let tool = Tool::new();
    let recipients: Vec<_> = (0..5).map(|number| format!("n{number}@example.com")).collect();
    let ids: Vec<_> = recipients.iter().map(|to| tool.enqueue(&["--to", to])).collect();
    provider.set_refusal(Some(refusal));
    let url = provider.url();
    for _ in 0..2 {
        let before = provider.server.request_count();
        let output = tool.run(&[&WORK[..], &["--drain", "--transport", &url]].concat());
        assert_eq!(output.code, 3, "{what}: {}", output.stderr);
        let last = output.stderr.lines().last().unwrap();
        let start = format!("postrider: the transport {} is paused: ", provider.name);
        assert!(last.starts_with(&start) && last.contains(reason), "{what}: {last}");
        assert!(!output.stderr.contains(KEY) && !output.stdout.contains(KEY), "{what}: {}", output.stderr);
        assert!(provider.server.request_count() > before, "{what}: no request was sent");
    }

    let stats = tool.stats();
    let counts = ["pending", "dead", "sent", "leased", "in_doubt"].map(|state| stats[state].as_u64().unwrap());
    assert_eq!(counts, [5, 0, 0, 0, 0], "{what}");
    for shown in [stats["relays"][0]["paused"].as_str().unwrap(), &tool.ok(&["stats"])] {
        assert!(shown.contains(&format!("{}: ", provider.name)) && shown.contains(reason), "{what}: {shown}");
        assert!(!shown.contains(KEY), "{what}: {shown}");
    }
    let mut attempts = 0;
    for id in &ids {
        let shown = tool.show(id);
        assert_eq!(shown["state"], "pending", "{what}");
        for attempt in shown["attempts"].as_array().unwrap() {
            assert_eq!(attempt["scope"], "transport", "{what}: {attempt}");
            attempts += 1;
        }
        assert!(!shown.to_string().contains(KEY), "{what}: {shown}");
    }
    assert!(attempts >= 2, "{what}: an attempt is not recorded");

    // A running relay resumes by itself once the provider accepts again.
    let running = tool.start(&[&WORK[..], &["--poll", "20ms", "--transport", &url]].concat());
    let before = provider.server.request_count();
    wait_until("the relay has tried", || provider.server.request_count() > before);
    provider.set_refusal(None);
    wait_until("all mail is sent", || tool.stats()["sent"] == 5);
    running.signal("TERM");
    let output = running.wait();
    assert_eq!(output.code, 0, "{what}: {}", output.stderr);
    assert!(!output.stderr.contains(KEY), "{what}: {}", output.stderr);
    let mut accepted = std::mem::take(&mut *provider.accepted.lock().unwrap());
    accepted.sort();
    assert_eq!(accepted, recipients, "{what}: each mail is sent once");
    assert!(ids.iter().all(|id| tool.show(id)["attempts"].as_array().unwrap().last().unwrap()["outcome"] == "sent"));
}

/// The codes are those of <https://postmarkapp.com/developer/api/overview#error-codes>.
#[test]
fn postmark() {
    let provider = Provider::postmark();
    let error = |code: i64, message: &str| json!({"ErrorCode": code, "Message": message});
    let key = error(10, "The Server Token you provided in the X-Postmark-Server-Token request header was invalid.");
    assert_paused_and_uncharged(&provider, (401, key), "Server Token");
    let suspended = error(413, "Your account is not allowed to send.");
    assert_paused_and_uncharged(&provider, (422, suspended), "not allowed");
    let quota = error(405, "You ran out of credits.");
    assert_paused_and_uncharged(&provider, (422, quota), "credits");
}

/// The names are those of <https://resend.com/docs/api-reference/errors>.
#[test]
fn resend() {
    let provider = Provider::resend();
    let error = |status: u16, name: &str| (status, json!({"statusCode": status, "name": name, "message": "No."}));
    assert_paused_and_uncharged(&provider, error(403, "invalid_api_key"), "invalid_api_key");
    assert_paused_and_uncharged(&provider, error(403, "suspended_api_key"), "suspended_api_key");
    assert_paused_and_uncharged(&provider, error(429, "daily_quota_exceeded"), "daily_quota_exceeded");
}

#[cfg(feature = "ses")]
#[test]
fn failover_sends_by_another_provider() {
    let (postmark, ses) =
        (Provider::postmark(), HttpServer::with_script(|_| (200, json!({"MessageId": "0100017f-4e"}))));
    postmark.set_refusal(Some((422, json!({"ErrorCode": 405, "Message": "You ran out of credits."}))));
    let tool = Tool::new();
    let id = tool.enqueue(&[]);
    let endpoint = format!("http%3A%2F%2F{}", ses.host().replace(':', "%3A"));
    let ses = format!("ses://AKIA:{KEY}@default?region=eu-west-1&endpoint={endpoint}");
    assert_eq!(tool.drain(&format!("failover({} {ses})", postmark.url()))["sent"], 1);
    let shown = tool.show(&id);
    assert_eq!(shown["attempts"][0]["provider_id"], "0100017f-4e", "{shown}");
    assert_eq!(shown["attempts"][0]["transport"], "failover/ses", "the attempt names the transport");
    assert_eq!(postmark.server.request_count(), 1);
}
