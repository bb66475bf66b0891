//! A provider that can send for nobody costs no mail: a wrong key, a suspended account, a quota that is used up.

use std::slice;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::api::Api;
use crate::tool::{Tool, wait_until};

const KEY: &str = "K3Y-that-nobody-may-see";

/// What a provider says to everything, until it is told to accept.
struct Provider {
    api: Api,
    refusal: Arc<Mutex<Option<(u16, Value)>>>,
    /// The recipient of each mail that it accepted.
    accepted: Arc<Mutex<Vec<String>>>,
    name: &'static str,
}

impl Provider {
    /// `one` is its acceptance of a mail, and `several` makes of many that of a batch.
    fn with(name: &'static str, one: Value, several: fn(Vec<Value>) -> Value) -> Self {
        let (refusal, accepted) = (Arc::<Mutex<Option<(u16, Value)>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (says, accepts) = (Arc::clone(&refusal), Arc::clone(&accepted));
        let api = Api::with(move |request| {
            if let Some(refusal) = says.lock().unwrap().clone() {
                return refusal;
            }
            let mails = request.as_array().map_or(slice::from_ref(request), Vec::as_slice);
            accepts.lock().unwrap().extend(mails.iter().map(recipient));
            let answer = if request.is_array() { several(vec![one.clone(); mails.len()]) } else { one.clone() };
            (200, answer)
        });
        Self { api, refusal, accepted, name }
    }

    /// <https://postmarkapp.com/developer/api/email-api>
    fn postmark() -> Self {
        let one = json!({"ErrorCode": 0, "Message": "OK", "MessageID": "b7bc2f4a-e38e-4336-af7d-e6c392c2f817"});
        Self::with("postmark", one, Value::Array)
    }

    /// <https://resend.com/docs/api-reference/emails/send-batch-emails>
    fn resend() -> Self {
        let one = json!({"id": "49a3999c-0ce1-4ea6-ab68-afcd6dc2e794"});
        Self::with("resend", one, |all| json!({"data": all}))
    }

    fn says(&self, refusal: Option<(u16, Value)>) {
        *self.refusal.lock().unwrap() = refusal;
    }

    fn url(&self) -> String {
        format!("{}://{KEY}@{}", self.name, self.api.host())
    }
}

fn recipient(mail: &Value) -> String {
    let to = mail.get("to").and_then(|to| to.get(0)).or(mail.get("To")).unwrap();
    to.as_str().unwrap().to_owned()
}

/// With a budget of one attempt, a single one that is charged ends a delivery.
const WORK: [&str; 4] = ["work", "--json", "--attempts", "1"];

fn is_paused_and_costs_nothing(provider: &Provider, refusal: (u16, Value), reason: &str) {
    let what = format!("{} says {refusal:?}", provider.name);
    let tool = Tool::new();
    let recipients: Vec<_> = (0..5).map(|number| format!("n{number}@example.com")).collect();
    let ids: Vec<_> = recipients.iter().map(|to| tool.enqueue(&["--to", to])).collect();
    provider.says(Some(refusal));
    let url = provider.url();
    for _ in 0..2 {
        let before = provider.api.asked();
        let ran = tool.run(&[&WORK[..], &["--drain", "--transport", &url]].concat());
        assert_eq!(ran.code, 3, "{what}: {}", ran.stderr);
        let last = ran.stderr.lines().last().unwrap();
        let start = format!("postrider: the transport {} is paused: ", provider.name);
        assert!(last.starts_with(&start) && last.contains(reason), "{what}: {last}");
        assert!(!ran.stderr.contains(KEY) && !ran.stdout.contains(KEY), "{what}: {}", ran.stderr);
        assert!(provider.api.asked() > before, "{what}: it was asked");
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
    assert!(attempts >= 2, "{what}: each call is on record");

    // A relay that goes on finds out by itself that the provider works again.
    let running = tool.start(&[&WORK[..], &["--poll", "20ms", "--transport", &url]].concat());
    let before = provider.api.asked();
    wait_until("it has tried", || provider.api.asked() > before);
    provider.says(None);
    wait_until("all is sent", || tool.stats()["sent"] == 5);
    running.signal("TERM");
    let ran = running.wait();
    assert_eq!(ran.code, 0, "{what}: {}", ran.stderr);
    assert!(!ran.stderr.contains(KEY), "{what}: {}", ran.stderr);
    let mut accepted = std::mem::take(&mut *provider.accepted.lock().unwrap());
    accepted.sort();
    assert_eq!(accepted, recipients, "{what}: each is sent once");
    assert!(ids.iter().all(|id| tool.show(id)["attempts"].as_array().unwrap().last().unwrap()["outcome"] == "sent"));
}

/// The codes are those of <https://postmarkapp.com/developer/api/overview#error-codes>.
#[test]
fn postmark() {
    let provider = Provider::postmark();
    let says = |code: i64, message: &str| json!({"ErrorCode": code, "Message": message});
    let key = says(10, "The Server Token you provided in the X-Postmark-Server-Token request header was invalid.");
    is_paused_and_costs_nothing(&provider, (401, key), "Server Token");
    let suspended = says(413, "Your account is not allowed to send.");
    is_paused_and_costs_nothing(&provider, (422, suspended), "not allowed");
    let quota = says(405, "You ran out of credits.");
    is_paused_and_costs_nothing(&provider, (422, quota), "credits");
}

/// The names are those of <https://resend.com/docs/api-reference/errors>.
#[test]
fn resend() {
    let provider = Provider::resend();
    let says = |status: u16, name: &str| (status, json!({"statusCode": status, "name": name, "message": "No."}));
    is_paused_and_costs_nothing(&provider, says(403, "invalid_api_key"), "invalid_api_key");
    is_paused_and_costs_nothing(&provider, says(403, "suspended_api_key"), "suspended_api_key");
    is_paused_and_costs_nothing(&provider, says(429, "daily_quota_exceeded"), "daily_quota_exceeded");
}

#[cfg(feature = "ses")]
#[test]
fn where_one_provider_is_out_of_order_another_one_sends() {
    let (postmark, ses) = (Provider::postmark(), Api::with(|_| (200, json!({"MessageId": "0100017f-4e"}))));
    postmark.says(Some((422, json!({"ErrorCode": 405, "Message": "You ran out of credits."}))));
    let tool = Tool::new();
    let id = tool.enqueue(&[]);
    let endpoint = format!("http%3A%2F%2F{}", ses.host().replace(':', "%3A"));
    let ses = format!("ses://AKIA:{KEY}@default?region=eu-west-1&endpoint={endpoint}");
    assert_eq!(tool.drain(&format!("failover({} {ses})", postmark.url()))["sent"], 1);
    let shown = tool.show(&id);
    assert_eq!(shown["attempts"][0]["provider_id"], "0100017f-4e", "{shown}");
    assert_eq!(shown["attempts"][0]["transport"], "failover/ses", "where to look it up");
    assert_eq!(postmark.api.asked(), 1);
}
