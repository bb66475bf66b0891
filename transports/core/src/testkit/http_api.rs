//! The suite's peer for transports that speak HTTP.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Accepted, Answer, HttpPeer, HttpReply, HttpRequest, ScriptedPeer};

/// An HTTP API as the suite's peer plays it: how its requests are read, and in which words it answers.
pub trait HttpApi: Send + Sync + 'static {
    /// The messages that a request asks for, in their order: one, unless the API has batches. Their
    /// [`provider_id`](Accepted::provider_id) is not looked at.
    fn messages(&self, request: &HttpRequest) -> Vec<Accepted>;

    /// The answer to a request for one message that is accepted under this name, which is made of digits.
    fn accept(&self, id: &str) -> HttpReply;

    /// The answer to a request for one message that is refused in this way: [`RefuseMessage`](Answer::RefuseMessage),
    /// [`Busy`](Answer::Busy), [`RefuseCredentials`](Answer::RefuseCredentials), [`RateLimit`](Answer::RateLimit) or
    /// [`Unavailable`](Answer::Unavailable). It is to repeat what a careless peer would: addresses, and the key that it was shown.
    fn refuse(&self, answer: Answer) -> HttpReply;

    /// The answer to a request for several messages: for each the name under which it is accepted, or `None` if it is refused for good.
    fn batch(&self, outcomes: &[Option<String>]) -> HttpReply {
        panic!("the API takes one message at a time, and was asked for {}", outcomes.len())
    }
}

/// A [`ScriptedPeer`] that speaks an [`HttpApi`].
#[derive(Debug)]
pub struct ScriptedHttp {
    peer: HttpPeer,
    record: Arc<Mutex<Record>>,
}

#[derive(Debug, Default)]
struct Record {
    planned: VecDeque<Answer>,
    /// The contents of what was refused for good, and is again when asked for again.
    refused: HashSet<String>,
    read: usize,
    accepted: Vec<Accepted>,
}

impl ScriptedHttp {
    /// Starts it.
    pub async fn start(api: impl HttpApi) -> Self {
        let record = Arc::<Mutex<Record>>::default();
        let shared = Arc::clone(&record);
        let peer = HttpPeer::answering(move |request| lock(&shared).reply(&api, api.messages(request))).await;
        Self { peer, record }
    }

    /// Where it is, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.peer.url()
    }
}

impl Record {
    fn reply(&mut self, api: &impl HttpApi, mut messages: Vec<Accepted>) -> HttpReply {
        self.read += messages.len();
        if messages.len() != 1 {
            let outcomes: Vec<_> = messages
                .into_iter()
                .map(|message| match self.answer_to(&message) {
                    Answer::Accept => Some(self.accept(message)),
                    _ => None,
                })
                .collect();
            return api.batch(&outcomes);
        }
        let message = messages.remove(0);
        match self.answer_to(&message) {
            Answer::Accept => api.accept(&self.accept(message)),
            Answer::Hang => HttpReply::Held(Box::new(api.accept(&self.accept(message)))),
            Answer::CloseAfterReading => HttpReply::Close,
            Answer::Garbage => HttpReply::Raw(b"220 mail.example.com ready for <bob.builder@example.org>\r\n".to_vec()),
            refusal => api.refuse(refusal),
        }
    }

    fn answer_to(&mut self, message: &Accepted) -> Answer {
        if self.refused.contains(&message.content) {
            return Answer::RefuseMessage;
        }
        let answer = self.planned.pop_front().unwrap_or(Answer::Accept);
        if answer == Answer::RefuseMessage {
            self.refused.insert(message.content.clone());
        }
        answer
    }

    fn accept(&mut self, mut message: Accepted) -> String {
        let id = (1_000_000 + self.accepted.len()).to_string();
        message.provider_id = Some(id.clone());
        self.accepted.push(message);
        id
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ScriptedPeer for ScriptedHttp {
    fn plan(&self, answer: Answer) {
        match answer {
            Answer::CloseBeforeReading => self.peer.next(HttpReply::ResetUnread),
            answer => lock(&self.record).planned.push_back(answer),
        }
    }

    fn release(&self) {
        self.peer.release();
    }

    fn read(&self) -> usize {
        lock(&self.record).read
    }

    fn accepted(&self) -> Vec<Accepted> {
        lock(&self.record).accepted.clone()
    }
}
