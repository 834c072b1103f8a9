//! Which findings of the check hold although a part of the file could not be read.
//!
//! A text that is not YAML is read without the lines that make no sense (`yaml::Gaps`). A finding that one of them could settle, a
//! name that may be defined there or a field that seems to be missing, would send its reader after a mistake that is none: it is
//! withheld until the file can be read. All others are reported at once.

use super::{
    diagnostics::{Code, Diagnostic},
    yaml::Gaps,
};

/// Whether nothing that stands in the gaps of a text can settle a finding.
pub(super) fn is_certain(found: &Diagnostic, text: &str, gaps: &Gaps) -> bool {
    let own_entry_is_whole = || !gaps.are_in_entry(found.span.start);
    let its_places_are_whole =
        || own_entry_is_whole() && found.related.iter().all(|related| !gaps.are_in_entry(related.span.start));
    if gaps.is_empty() {
        return true;
    }
    match found.code {
        // About one value, whatever else the file says.
        Code::Tab
        | Code::Unclosed
        | Code::UnquotedStar
        | Code::UnquotedVariable
        | Code::Duplicate
        | Code::NotYaml
        | Code::UnknownField
        | Code::Duration
        | Code::Size
        | Code::Rate
        | Code::WrongType
        | Code::NotAChoice
        | Code::OutOfRange
        | Code::Invalid
        | Code::Unreadable
        | Code::Unset
        | Code::NotAnAddress
        | Code::Unsupported
        | Code::BadHash
        | Code::BadCertificate
        | Code::OpenAdmin
        | Code::Loop
        | Code::PlainSecret
        | Code::RetriesPost
        | Code::ExpiresSoon
        | Code::TooFewFit
        | Code::Unverified => true,
        Code::UnknownUpstream | Code::UnknownName => {
            let written = text.get(found.span.clone()).unwrap_or_default();
            // What a `${…}` stands for is not known here. Where a mend has touched the place, more than the name is written there.
            !written.contains("${")
                && !written.split_whitespace().any(|word| gaps.may_define(word.trim_matches(['"', '\''])))
        }
        Code::Missing if found.path.is_empty() => {
            !["routes", "listen", "listeners"].iter().any(|name| gaps.are_in_block(name))
        }
        Code::Missing | Code::Misplaced | Code::NobodyKnown | Code::FewEjected | Code::TurnedAway | Code::NoBackups => {
            own_entry_is_whole()
        }
        Code::NoHealth | Code::Contradiction => own_entry_is_whole() && !gaps.are_in_block("defaults"),
        Code::SameRequests | Code::SameName | Code::Shadowed => its_places_are_whole(),
        Code::SameBind => its_places_are_whole() && !gaps.are_in_block("admin"),
        Code::Uncovered => own_entry_is_whole() && !gaps.are_in_block("listeners"),
        Code::ProbeBudget | Code::Unused => false,
    }
}
