//! The macros that turn the suites into tests. A case that is missing here fails
//! `tests/listed.rs`.

/// One `#[test]` per store case: `store_conformance!(name, open())`, where the expression is a
/// future of a fresh [`StoreInstance`](crate::StoreInstance) each time it is evaluated.
#[macro_export]
macro_rules! store_conformance {
    ($backend:ident, $open:expr) => {
        $crate::store_conformance!(@tests $backend, $open;
            ownership: [
                the_first_proposal_fixes_the_deployment,
                a_lease_is_exclusive_until_it_lapses_by_store_time,
                a_holder_renews_its_lease,
                a_lease_is_released_by_its_holder_only,
                an_unknown_shard_reads_as_zero,
                only_the_holder_of_the_lease_raises_the_epoch,
                the_epoch_is_raised_from_what_was_read,
                two_owners_race_for_a_shard_and_one_wins,
                a_commit_races_a_takeover_and_is_seen_or_fenced,
                shards_do_not_share_leases_or_epochs,
            ],
            commit: [
                a_commit_before_any_takeover_is_fenced,
                a_commit_moves_seq_offset_and_last_entry,
                the_same_commit_again_is_committed_again,
                another_commit_under_a_used_seq_is_a_conflict,
                a_commit_out_of_order_is_a_conflict,
                a_stale_epoch_is_refused_and_writes_nothing,
                a_late_copy_of_a_fenced_owners_commit_changes_nothing,
                a_group_commit_is_seen_whole,
                a_later_commit_writes_over_an_earlier_one,
                an_artifact_number_is_taken_once,
                a_batch_uid_is_accepted_once,
                an_artifact_twice_in_one_commit_is_refused_whole,
                a_refused_commit_leaves_its_seq_free,
                a_commit_carries_512_records_and_4_mib,
            ],
            crash: [
                what_was_synced_survives_a_crash,
                a_crash_leaves_a_prefix_of_commits,
                a_commit_in_doubt_is_settled_after_a_crash,
                a_raised_epoch_survives_a_crash,
                registrations_survive_a_crash,
                scratch_and_staged_bodies_survive_a_crash,
                a_lease_after_a_crash,
                sync_is_for_stores_that_apply_first,
                readers_see_synced_state_and_owners_applied_state,
            ],
            reads: [
                loading_pages_the_unsettled_tasks_of_a_shard,
                records_age_by_store_time,
                lookups_answer_in_order,
                lists_page_every_task,
                a_task_is_read_with_its_nodes_by_id,
                active_runs_follow_the_grants,
                an_unreadable_record_sets_its_task_aside,
                ids_of_any_script_and_shape_stay_apart,
                large_values_come_back_whole,
            ],
            workers: [
                a_registration_raises_only_from_what_it_expects,
                every_registration_raises_the_incarnation,
                a_registration_writes_the_whole_record,
                an_unreadable_worker_is_named_and_the_others_are_read,
                grants_are_read_in_order_and_unknown_nodes_are_none,
                a_token_is_current_while_its_grant_stands,
                a_grant_is_cancelled_with_its_task_or_alone,
            ],
            artifacts: [
                accepted_batches_page_by_number,
                artifacts_page_by_number,
                a_reply_of_artifacts_is_bounded_in_bytes,
                a_staged_body_is_invisible_until_accepted,
                a_staged_body_of_another_token_is_never_shown,
                staging_again_is_harmless,
                an_accepted_body_never_changes,
                an_accepted_body_that_is_missing_is_corrupt,
            ],
            sweep: [
                a_tombstone_hides_its_task_and_keeps_its_id,
                a_removal_takes_its_own_records_and_nothing_else,
                settled_tasks_expire_by_store_time_longest_ago_first,
                a_task_that_another_one_points_to_says_so,
                staged_bodies_that_nothing_can_point_to_are_swept,
                tasks_with_staged_bodies_are_paged,
            ],
            scratch: [
                scratch_that_was_never_written_is_none,
                scratch_is_handed_to_the_next_token,
                taking_scratch_fences_older_tokens,
                writing_scratch_fences_older_tokens,
                a_late_copy_of_an_older_save_changes_nothing,
                scratch_belongs_to_one_node,
            ],
        );
    };
    (@tests $backend:ident, $open:expr; $($group:ident: [$($case:ident),* $(,)?]),* $(,)?) => {
        mod $backend {
            #[allow(unused_imports, reason = "what the expression needs")]
            use super::*;
            $($(
                #[test]
                fn $case() {
                    $crate::run(async {
                        let mut instance = $open.await;
                        $crate::store::$group::$case(&mut instance).await;
                    });
                }
            )*)*
        }
    };
}

/// A store compared with its model (see [`fidelity`](crate::fidelity)), for backends that are in the
/// process: `store_matches_model!(name, open())` expands to one `#[test]`.
#[macro_export]
macro_rules! store_matches_model {
    ($name:ident, $open:expr) => {
        #[test]
        fn $name() {
            use $crate::fidelity::{Budget, conclude, store};
            let budget = Budget::of_environment(2);
            let outcome = store::compare(budget, store::Shape::IN_PROCESS, async || $open.await);
            conclude(stringify!($name), budget, &outcome);
        }
    };
}

/// One `#[test]` per transport case: `transport_conformance!(name, open())`.
#[macro_export]
macro_rules! transport_conformance {
    ($backend:ident, $open:expr) => {
        $crate::transport_conformance!(@tests $backend, $open;
            order: [
                offsets_count_up_and_entries_come_back_in_order,
                a_read_goes_on_where_the_last_one_ended,
                streams_do_not_mix,
                concurrent_appends_are_each_there_once,
                a_message_comes_back_as_it_was_sent,
                a_large_message_comes_back_whole,
                an_undecodable_entry_keeps_its_place,
                a_message_over_the_limit_is_invalid,
            ],
            waiting: [
                a_waiting_read_is_woken_by_an_append,
                every_waiting_reader_is_woken,
                a_wait_that_runs_out_is_empty,
                a_read_that_must_not_wait_returns_at_once,
                a_dropped_read_leaves_nothing_behind,
            ],
            bounds: [
                an_unused_stream_is_empty,
                bounds_follow_appends,
                a_read_beyond_the_end_is_invalid,
                forgotten_entries_are_gone_or_kept_as_declared,
                forgetting_never_passes_the_end,
                a_reopened_stream_is_there_or_empty_as_declared,
            ],
        );
    };
    (@tests $backend:ident, $open:expr; $($group:ident: [$($case:ident),* $(,)?]),* $(,)?) => {
        mod $backend {
            #[allow(unused_imports, reason = "what the expression needs")]
            use super::*;
            $($(
                #[test]
                fn $case() {
                    $crate::run(async {
                        let mut instance = $open.await;
                        $crate::transport::$group::$case(&mut instance).await;
                    });
                }
            )*)*
        }
    };
}

/// One `#[test]` per feature of the guide: `guide_conformance!(name, open())`, where the expression is a
/// future of a fresh [`Ground`](crate::guide::Ground) each time it is evaluated.
#[macro_export]
macro_rules! guide_conformance {
    ($backend:ident, $open:expr) => {
        $crate::guide_conformance!(@tests $backend, $open;
            handlers: [
                every_hook_is_called_in_order_and_totals_are_of_all_attempts,
                a_batch_has_one_idempotency_key_in_every_attempt,
                a_node_goes_on_at_its_checkpoint_when_its_worker_has_died,
                work_goes_on_after_every_process_has_died,
                a_program_works_as_a_handler_and_is_told_of_its_cancel,
                a_reference_reaches_handlers_and_programs_as_the_graph_gives_it,
            ],
            endings: [
                a_code_that_the_node_calls_permanent_is_not_tried_again,
                what_failed_attempts_wrote_and_marked_is_gone_and_what_was_accepted_stays,
                a_result_is_marked_by_a_batch_or_by_finalize_and_is_bounded,
                every_ending_cleans_up_in_one_order_and_leaves_no_process_and_no_folder,
            ],
            failures: [
                input_of_another_shape_is_never_tried_again,
                an_error_or_a_panic_of_any_hook_is_an_attempt_that_names_it,
                a_program_that_exits_or_says_nonsense_fails_as_its_page_says,
            ],
            sources: [
                a_file_is_read_in_chunks_and_goes_on_where_it_was,
                a_source_is_drawn_one_batch_at_a_time_and_its_error_ends_the_attempt,
            ],
            health: [
                metrics_count_what_workers_and_the_coordinator_have_done,
                a_deaf_worker_is_alive_and_not_ready_until_it_hears_again,
                a_coordinator_that_cannot_renew_its_lease_is_not_ready_until_it_can,
            ],
            why: [
                why_says_of_every_node_what_it_waits_for,
            ],
            graphs: [
                conditions_see_what_functions_of_the_user_made_of_the_vars,
                a_detector_of_the_user_keeps_a_value_out_of_the_vars,
                a_rerun_reads_what_the_old_task_kept,
                nodes_start_by_fan_in_routing_and_edges_and_functions_tell_of_them,
            ],
            inputs: [
                the_adapter_of_the_graph_counts_before_that_of_the_handler,
                a_faulty_adapter_is_refused_and_a_strict_worker_does_not_guess,
                several_sources_give_the_same_uids_in_every_task_and_empty_ones_none,
                a_stream_is_read_in_chunks_while_its_source_still_works,
                one_slot_runs_a_source_and_its_reader,
                sources_whose_ids_hold_colons_stay_apart,
                readers_that_are_not_woken_look_as_often_as_their_arguments_say,
            ],
            operating: [
                a_paused_task_starts_nothing_until_it_is_resumed,
                tasks_run_by_priority,
                a_delayed_task_does_not_start_before_its_time,
                limits_of_all_of_a_type_and_of_a_key_hold_and_are_used,
                starts_of_a_key_are_spread_over_time,
                a_finished_task_is_swept_and_its_id_stays_taken,
            ],
            cancels: [
                a_handler_sees_that_a_client_cancelled_it_and_until_when,
                a_stopping_worker_tells_its_handlers_and_hands_the_node_over,
                a_failed_node_ends_its_neighbours,
                a_failed_source_ends_its_reader_and_is_named_as_the_reason,
                the_stores_flag_reaches_a_handler_when_the_signal_is_lost,
                a_lapsed_lease_ends_a_handler,
                a_store_that_is_away_for_a_lease_ends_a_handler,
                a_handler_whose_node_has_a_newer_holder_is_fenced,
                a_handler_of_an_older_process_of_its_worker_is_fenced,
                a_reader_that_waits_yields_its_slot_and_goes_on_where_it_was,
                a_handler_that_cannot_be_ended_is_shown_as_abandoned_until_it_returns,
            ],
            workers: [
                a_worker_that_is_killed_and_starts_again_goes_on_long_before_its_lease_ends,
                a_node_goes_only_to_a_worker_of_its_role,
                the_roles_of_a_worker_share_its_slots,
                five_workers_share_one_role_evenly,
                workers_of_one_process_have_slots_and_ids_of_their_own,
                an_announcement_says_who_the_worker_is_and_what_it_can,
                what_a_worker_runs_its_checkpoints_and_when_it_was_heard_can_be_asked,
                records_that_cannot_be_read_cost_their_tasks_and_nothing_else,
            ],
        );
    };
    (@tests $backend:ident, $open:expr; $($group:ident: [$($case:ident),* $(,)?]),* $(,)?) => {
        mod $backend {
            #[allow(unused_imports, reason = "what the expression needs")]
            use super::*;
            $($(
                #[test]
                fn $case() {
                    $crate::guide::run_case(async {
                        $crate::guide::$group::$case($open.await).await;
                    });
                }
            )*)*
        }
    };
}
