//! Each check finds a transport with a defect.

use postrider_transport::testkit::*;

use crate::defective::{Defect, Fixture};

mod without_defects {
    use super::*;

    postrider_transport::transport_tests!(Fixture(Defect::Nothing));
}

/// Asserts that a check of the suite fails. The tests run on paused time, so waits are short.
macro_rules! caught {
    ($($defect:ident by $check:ident),* $(,)?) => {$(
        let check = tokio::spawn(async { $check(&Fixture(Defect::$defect)).await });
        let caught = check.await.is_err_and(|error| error.is_panic());
        assert!(caught, "{} does not find {}", stringify!($check), stringify!($defect));
    )*};
}

#[tokio::test(start_paused = true)]
async fn wrong_classification() {
    caught! {
        RefusalIsTransient by a_refused_message,
        RefusalBlamesTheTransport by a_refused_message,
        BusyIsPermanent by a_deferred_message,
        CredentialsBlameTheMessage by refused_credentials,
        OutageIsPermanent by an_unavailable_peer,
        LimitWithoutWait by a_rate_limit,
        LimitBlamesTheMessage by a_rate_limit,
        CloseIsNotInDoubt by a_connection_closed_before_the_answer,
        CloseChargesTheMessage by a_connection_closed_at_once,
        HangIsNotInDoubt by a_missing_answer,
        NoTimeLimit by a_missing_answer,
        GarbageIsSuccess by a_malformed_answer,
        AlwaysInDoubt by an_unreachable_peer,
        AcceptedWithoutPeer by an_unreachable_peer,
    }
}

#[tokio::test(start_paused = true)]
async fn more_than_one_attempt() {
    caught! {
        TriesTwice by a_deferred_message,
        TriesTwiceAndReportsTheFirst by a_deferred_message,
        TriesTwiceAndReportsTheFirst by a_connection_closed_before_the_answer,
        SendsTwice by an_accepted_message_has_its_receipt,
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_results() {
    caught! {
        AddressesAllRecipients by only_the_recipients_of_the_attempt_are_addressed,
        AddressesOnlyTheFirst by only_the_recipients_of_the_attempt_are_addressed,
        RepeatsTheFirstReceipt by an_accepted_message_has_its_receipt,
        InventsRefusals by an_accepted_message_has_its_receipt,
        LosesTheText by an_accepted_message_has_its_receipt,
        LosesTheHtml by an_accepted_message_has_its_receipt,
        MixesUpConcurrentCalls by concurrent_messages_have_their_own_receipts,
        DiffersByAttempt by every_attempt_sends_the_same_message,
        BatchIsReversed by a_batch_has_a_result_for_each_message,
        BatchLacksOne by a_batch_has_a_result_for_each_message,
        BatchFailsAsAWhole by a_batch_has_a_result_for_each_message,
        NoBatchAtAll by a_batch_has_a_result_for_each_message,
        SendsUnsupportedMail by an_unsupported_mail,
        UnsupportedIsJustPermanent by an_unsupported_mail,
        CheckAcceptsEverything by an_unsupported_mail,
    }
}

#[tokio::test(start_paused = true)]
async fn state_left_by_a_call() {
    caught! {
        IsBrokenByAFault by a_malformed_answer,
        IsBrokenByAFault by a_connection_closed_before_the_answer,
        ReadsTheDroppedCallsAnswer by the_answer_to_a_dropped_call_is_discarded,
        IsBrokenByADroppedCall by the_answer_to_a_dropped_call_is_discarded,
        IsBrokenByADroppedCall by a_call_can_be_dropped_at_any_time,
        SendsADroppedCallAgain by a_call_can_be_dropped_at_any_time,
    }
}

#[tokio::test(start_paused = true)]
async fn leaks() {
    caught! {
        NameIsEmpty by the_name_can_be_shown,
        NameShowsSecret by the_name_can_be_shown,
        DebugShowsSecret by nothing_confidential_is_shown,
        DebugShowsTheLastMail by nothing_confidential_is_shown,
        FailureShowsSecret by nothing_confidential_is_shown,
        ReplyShowsSecret by nothing_confidential_is_shown,
        SourceShowsAddresses by nothing_confidential_is_shown,
        FailureShowsTheSubject by nothing_confidential_is_shown,
    }
}
