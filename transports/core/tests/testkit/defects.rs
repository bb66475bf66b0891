//! Each check catches a transport that does otherwise.

use postrider_transport::testkit::*;

use crate::defective::{Defect, Fixture};

mod without_defects {
    use super::*;

    postrider_transport::transport_tests!(Fixture(Defect::Nothing));
}

/// Asserts that a check of the suite fails. The clock goes on by itself while everybody waits, so that nobody waits long.
macro_rules! caught {
    ($($defect:ident by $check:ident),* $(,)?) => {$(
        let check = tokio::spawn(async { $check(&Fixture(Defect::$defect)).await });
        let caught = check.await.is_err_and(|error| error.is_panic());
        assert!(caught, "{} does not catch {}", stringify!($check), stringify!($defect));
    )*};
}

#[tokio::test(start_paused = true)]
async fn wrong_meanings() {
    caught! {
        RefusalIsTransient by a_message_that_is_refused,
        RefusalBlamesTheTransport by a_message_that_is_refused,
        BusyIsPermanent by a_message_that_is_put_off,
        CredentialsBlameTheMessage by credentials_that_are_refused,
        OutageIsPermanent by a_peer_that_is_out_of_order,
        LimitWithoutWait by a_rate_limit,
        LimitBlamesTheMessage by a_rate_limit,
        CloseIsCertain by a_connection_that_is_closed_before_the_answer,
        CloseChargesTheMessage by a_connection_that_is_closed_at_once,
        HangIsCertain by an_answer_that_does_not_come,
        NoTimeLimit by an_answer_that_does_not_come,
        GarbageIsSuccess by an_answer_that_makes_no_sense,
        AlwaysInDoubt by nobody_is_there,
        AcceptedByNobody by nobody_is_there,
    }
}

#[tokio::test(start_paused = true)]
async fn more_than_one_try() {
    caught! {
        TriesTwice by a_message_that_is_put_off,
        TriesTwiceAndTellsTheFirst by a_message_that_is_put_off,
        TriesTwiceAndTellsTheFirst by a_connection_that_is_closed_before_the_answer,
        SendsTwice by what_is_accepted_is_told_with_its_own_receipt,
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_results() {
    caught! {
        AddressesEverybody by exactly_those_are_addressed_whom_the_attempt_is_for,
        AddressesOnlyTheFirst by exactly_those_are_addressed_whom_the_attempt_is_for,
        TellsTheFirstReceiptAgain by what_is_accepted_is_told_with_its_own_receipt,
        InventsRefusals by what_is_accepted_is_told_with_its_own_receipt,
        LosesTheText by what_is_accepted_is_told_with_its_own_receipt,
        LosesTheHtml by what_is_accepted_is_told_with_its_own_receipt,
        MixesUpWhatRunsTogether by messages_side_by_side_get_their_own_receipts,
        DiffersByAttempt by every_attempt_sends_the_same,
        BatchIsReversed by a_batch_has_a_result_for_each,
        BatchLacksOne by a_batch_has_a_result_for_each,
        BatchFailsAsAWhole by a_batch_has_a_result_for_each,
        NoBatchAtAll by a_batch_has_a_result_for_each,
        SendsWhatItCannotExpress by an_inexpressible_mail,
        InexpressibleIsJustPermanent by an_inexpressible_mail,
        CheckLetsPass by an_inexpressible_mail,
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_call() {
    caught! {
        IsBrokenByAFault by an_answer_that_makes_no_sense,
        IsBrokenByAFault by a_connection_that_is_closed_before_the_answer,
        ReadsTheDroppedCallsAnswer by a_dropped_call_lends_its_answer_to_no_other,
        IsBrokenByADroppedCall by a_dropped_call_lends_its_answer_to_no_other,
        IsBrokenByADroppedCall by a_call_may_be_dropped_at_any_moment,
        SendsADroppedCallAgain by a_call_may_be_dropped_at_any_moment,
    }
}

#[tokio::test(start_paused = true)]
async fn indiscretions() {
    caught! {
        NameIsEmpty by the_name_is_fit_to_be_shown,
        NameIsSecret by the_name_is_fit_to_be_shown,
        DebugIsSecret by nothing_confidential_is_shown,
        DebugShowsTheLastMail by nothing_confidential_is_shown,
        FailureIsSecret by nothing_confidential_is_shown,
        ReplyIsSecret by nothing_confidential_is_shown,
        SourceShowsAddresses by nothing_confidential_is_shown,
        FailureShowsTheSubject by nothing_confidential_is_shown,
    }
}
