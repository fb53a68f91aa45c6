"""The further cases: tests that only `make test-all` runs, beside those marked `slow` where they stand.

`make test` is to end within 25 minutes on two slow CPUs. It keeps the cheapest case of each kind, these are the others:
the same assertion for another format, engine or model, or one that a cheaper test of the same module makes, too.
A line is how the id of a test begins; one that fits no test is an error.
"""

import pytest

FURTHER_CASES = """
tests/api/test_frameworks.py::test_a_motley_input_through_ray_data_has_the_rows_of_a_job
tests/api/test_frameworks.py::test_hugging_face_batches_without_any_image[empty1
tests/api/test_frameworks.py::test_hugging_face_batches_without_any_image[empty2
tests/api/test_frameworks.py::test_hugging_face_forms_of_images_give_the_same_masks[encoded
tests/api/test_frameworks.py::test_hugging_face_forms_of_images_give_the_same_masks[iterable
tests/api/test_model.py::test_camvid_masks_are_byte_equal_to_those_of_a_job
tests/cli/test_cli.py::test_a_new_field_of_the_job_is_a_flag_a_key_a_help_text_and_a_check
tests/cli/test_cli.py::test_pandas_is_hidden_until_ray_is_there[with ray
tests/cli/test_planted_text.py::test_a_command_prints_only_what_is_seen[compare '{other}' -f
tests/cli/test_planted_text.py::test_a_command_prints_only_what_is_seen[export
tests/cli/test_planted_text.py::test_a_command_prints_only_what_is_seen[label-errors -f
tests/cli/test_planted_text.py::test_a_command_prints_only_what_is_seen[models
tests/cli/test_planted_text.py::test_a_command_prints_only_what_is_seen[run
tests/cli/test_planted_text.py::test_a_command_prints_only_what_is_seen[score -f
tests/cli/test_streams.py::test_a_closed_stream_counts_as_dev_null[2>&-
tests/cli/test_streams.py::test_a_closed_stream_counts_as_dev_null[>&--
tests/cli/test_streams.py::test_a_failure_keeps_its_exit_code
tests/cli/test_streams.py::test_a_json_log_reports_the_failure_of_a_run
tests/cli/test_streams.py::test_a_run_completes_whatever_happens_to_its_output[2> >(true)
tests/cli/test_streams.py::test_a_run_completes_whatever_happens_to_its_output[>/dev/full
tests/cli/test_streams.py::test_unprintable_output_fails_only_commands_without_other_results[audit
tests/engines/test_engines.py::test_a_graph_of_another_card_is_refused[ray
tests/engines/test_engines.py::test_a_model_that_fails_by_value_on_its_first_image_ends_the_run[local
tests/engines/test_engines.py::test_batches_change_no_byte[local-3
tests/engines/test_engines.py::test_bytes_are_the_same_everywhere[local-2
tests/engines/test_engines.py::test_bytes_are_the_same_everywhere[local-3
tests/engines/test_engines.py::test_bytes_are_the_same_everywhere[local-gpu
tests/engines/test_engines.py::test_image_by_image_gives_the_same_bytes[local
tests/engines/test_engines.py::test_resume_reads_only_what_is_missing[local-3
tests/engines/test_engines.py::test_resume_reads_only_what_is_missing[local-gpu
tests/engines/test_engines.py::test_too_many_errors_end_the_run_and_a_higher_rate_resumes[local
tests/engines/test_gpu_path.py::test_the_benchmark_runs_without_a_gpu_and_claims_none
tests/engines/test_ray_pipeline.py::test_the_dashboard_shows_the_operators_and_a_row_for_each_part[image
tests/engines/test_ray_pipeline.py::test_the_dashboard_shows_the_operators_and_a_row_for_each_part[none-True
tests/inputs/test_discover.py::test_auto_part_size_follows_from_the_number_of_images[16384
tests/inputs/test_discover.py::test_auto_part_size_follows_from_the_number_of_images[5000
tests/inputs/test_remote.py::test_one_image_and_one_label_that_are_refused_are_error_rows[{'status': 302
tests/inputs/test_remote.py::test_one_image_and_one_label_that_are_refused_are_error_rows[{'status': 40
tests/inputs/test_remote.py::test_one_image_and_one_label_that_are_refused_are_error_rows[{'status': 41
tests/inputs/test_selection.py::test_some_images_of_every_format[limit
tests/models/test_draft_strangers.py::test_guesses_find_the_bird[lite-model_mobilenetv2
tests/models/test_draft_strangers.py::test_known_models_get_their_own_card[deeplab
tests/models/test_draft_strangers.py::test_metadata_of_tflite_files[lite
tests/models/test_draft_strangers.py::test_strangers_are_drafted[aiseg
tests/models/test_draft_strangers.py::test_strangers_are_drafted[deeplab
tests/models/test_draft_strangers.py::test_strangers_are_drafted[lite
tests/models/test_draft_strangers.py::test_strangers_are_drafted[prisma_quant
tests/models/test_draft_strangers.py::test_strangers_are_drafted[road
tests/models/test_draft_strangers.py::test_the_published_ir_gets_its_own_card
tests/models/test_reference_graphs.py::test_it_fits_its_card_on_both_runtimes_and_masks_vary[icnet
tests/models/test_reference_graphs.py::test_it_fits_its_card_on_both_runtimes_and_masks_vary[unet
tests/models/test_session_models.py::test_published_ir_with_random_weights
tests/models/test_session_models.py::test_tflite_is_as_openvino_itself[deeplabv3_mnv2_pascal
tests/models/test_session_models.py::test_threads_that_share_a_session_get_the_masks_of_one
tests/models/test_session_sigmoid.py::test_prisma_equals_onnxruntime_itself[0.9
tests/output/test_record.py::test_verify_mends_it[job
tests/output/test_record.py::test_verify_mends_it[scored_at
tests/output/test_record.py::test_verify_mends_it[versions
tests/output/test_record.py::test_verify_mends_it[weights.origin
tests/output/test_speed.py::test_memory_is_as_expected[unet-camvid-onnx-0001-unet32-camvid.onnx-1-openvino
tests/progress/test_progress.py::test_a_notebook_shows_one_output_that_is_replaced
tests/progress/test_watched.py::test_a_notebook_shows_the_run
tests/progress/test_watched.py::test_a_program_without_standard_streams
tests/reliability/test_audit.py::test_a_lost_file_of_a_run_is_not_called_no_run[report
tests/reliability/test_audit.py::test_a_lost_file_of_a_run_is_not_called_no_run[status
tests/reliability/test_cluster.py::test_a_private_cluster_ends_with_its_driver
tests/reliability/test_conditional_put.py::test_a_whole_run_on_moto
tests/reliability/test_conditional_put.py::test_damaged_on_the_way_it_is_mended[3
tests/reliability/test_data.py::test_a_damaged_tar_is_not_complete[cut off
tests/reliability/test_kill_points.py::test_a_run_through_the_proxy_is_an_undisturbed_run
tests/reliability/test_manifest.py::test_verify_mends_it[objects: a part
tests/reliability/test_manifest.py::test_verify_mends_it[objects: statistics
tests/reliability/test_manifest.py::test_verify_mends_it[objects: two
tests/reliability/test_manifest.py::test_verify_mends_it[rows: a
tests/reliability/test_memory.py::test_the_same_images_are_no_errors_where_there_is_memory
tests/reliability/test_pool.py::test_of_a_pool_that_the_cluster_has_no_room_for_some_work_and_none_is_left
tests/reliability/test_processes.py::test_a_driver_that_stands_still_for_a_while_blames_no_worker
tests/reliability/test_processes.py::test_a_worker_that_is_stuck_is_replaced[freeze
tests/reliability/test_processes.py::test_from_a_daemonic_process
tests/reliability/test_processes.py::test_from_a_notebook
tests/reliability/test_processes.py::test_from_what_is_typed_or_piped
tests/reliability/test_processes.py::test_no_worker_outlives_its_run[2
tests/reliability/test_quarantine.py::test_a_child_that_dies_while_it_loads_the_model_blames_no_image
tests/reliability/test_quarantine.py::test_a_run_whose_children_cannot_load_the_model_fails_and_resumes
tests/reliability/test_quarantine.py::test_an_image_that_freezes_its_process_is_one_row_too
tests/reliability/test_ray_start.py::test_too_few_open_files
tests/reliability/test_rework.py::test_a_replaced_tar_does_not_stand_in_the_others_way[local
tests/reliability/test_rounds.py::test_a_bug_in_one_of_three_operators_is_told_too[engines.ray_stages.decode
tests/reliability/test_rounds.py::test_a_bug_is_its_parts_failure_in_words[segment.pipeline.worker.decode
tests/reliability/test_rounds.py::test_a_bug_is_its_parts_failure_in_words[segment.pipeline.worker.encode
tests/reliability/test_signals.py::test_a_run_that_is_stopped_is_completed_by_the_same_command[1-
tests/reliability/test_signals.py::test_a_run_that_is_stopped_is_completed_by_the_same_command[15
tests/reliability/test_signals.py::test_a_run_that_is_stopped_is_completed_by_the_same_command[2-
tests/reliability/test_signals.py::test_under_nohup_a_hangup_is_ignored
tests/reliability/test_store_faults.py::test_a_flipped_bit_up_is_refused_by_the_store_and_sent_again
tests/reliability/test_store_faults.py::test_broken_connections[half_up
tests/reliability/test_store_faults.py::test_broken_connections[reset_before
tests/reliability/test_store_faults.py::test_refusals_end_the_run_at_once[input-
tests/reliability/test_store_faults.py::test_the_server_is_killed_and_restarted
tests/reliability/test_tampered_extras.py::test_odd_things_are_faults_that_the_advice_mends[a device
tests/reliability/test_tampered_extras.py::test_odd_things_are_faults_that_the_advice_mends[a link
tests/reliability/test_tampered_extras.py::test_odd_things_are_faults_that_the_advice_mends[a pipe for a part
tests/reliability/test_tampered_extras.py::test_odd_things_are_faults_that_the_advice_mends[statistics
tests/reliability/test_tampering.py::test_rows_of_other_images_are_found[files-False
tests/reliability/test_tampering.py::test_rows_of_other_images_are_found[parquet-False
tests/reliability/test_tampering.py::test_rows_of_other_images_are_found[parquet-True
tests/reliability/test_tampering.py::test_rows_of_other_images_are_found[webdataset-True
tests/reliability/test_verify.py::test_a_damaged_part_is_done_again_and_no_other[empty
tests/reliability/test_verify.py::test_a_damaged_part_is_done_again_and_no_other[lose
tests/reliability/test_verify.py::test_a_damaged_part_is_done_again_and_no_other[truncate
tests/reliability/test_verify.py::test_on_s3_it_is_one_request_a_part
tests/report/test_comparison.py::test_axe_finds_no_serious_problem[dark
tests/report/test_label_checks.py::test_a_run_says_what_its_labels_lack[values2
tests/report/test_label_checks.py::test_a_run_says_what_its_labels_lack[values3
tests/report/test_page.py::test_axe_finds_no_serious_problem[place-dark-390
tests/report/test_page.py::test_axe_finds_no_serious_problem[place-light-1280
tests/report/test_page.py::test_axe_finds_no_serious_problem[unlabelled-dark-1280
tests/report/test_page.py::test_axe_finds_no_serious_problem[unlabelled-dark-390
tests/report/test_page.py::test_axe_finds_no_serious_problem[unlabelled-light
tests/report/test_viewer.py::test_axe_finds_no_serious_problem_in_the_viewer[dark
tests/scores/test_compare.py::test_the_paired_interval_is_that_of_a_plain_loop[None-mmseg
tests/store/test_signatures_of_commands.py::test_a_signature_is_in_nothing_that_any_command_says_or_writes[local_list
tests/store/test_signatures_of_commands.py::test_a_signature_is_in_nothing_that_any_command_says_or_writes[parquet
tests/store/test_signatures_of_commands.py::test_a_signature_is_in_nothing_that_any_command_says_or_writes[tar
tests/store/test_signed_urls.py::test_a_run_whose_signatures_expire_goes_on_with_new_ones[local_list
tests/store/test_signed_urls.py::test_a_run_whose_signatures_expire_goes_on_with_new_ones[tar
tests/store/test_signed_urls.py::test_workers_elsewhere_are_given_the_signatures[local-1-local_list
tests/store/test_signed_urls.py::test_workers_elsewhere_are_given_the_signatures[ray-2-local_list
tests/store/test_signed_urls.py::test_workers_elsewhere_are_given_the_signatures[ray-split
tests/test_bad_input.py::test_a_class_out_of_range[-5
tests/test_bad_input.py::test_a_class_out_of_range[4-
tests/test_benchmark.py::test_the_command
tests/test_benchmark.py::test_the_limit_takes_the_fastest_runtime_whose_masks_agree
tests/test_camvid.py::test_counts_are_those_of_the_independent_script[list
tests/test_camvid.py::test_counts_are_those_of_the_independent_script[parquet
tests/test_camvid.py::test_counts_are_those_of_the_independent_script[tars
tests/test_camvid.py::test_ray_gives_the_same_masks
tests/test_job_files.py::test_ray_up_launches_every_kind_of_node
tests/test_models.py::test_known_answers[deeplabv3-mobilenetv2-dm05
tests/test_models.py::test_known_answers[deeplabv3-mobilenetv2-onnxruntime
tests/test_models.py::test_known_answers[icnet-camvid-int8-onnx-0001-openvino
tests/test_models.py::test_known_answers_on_ray[deeplab
tests/test_models.py::test_known_answers_on_ray[icnet
tests/test_models.py::test_masks_at_source_size_are_those_at_model_size_enlarged
tests/test_models.py::test_real_deeplab_gives_what_openvino_gives
tests/test_models.py::test_swapped_channels_are_caught[deeplabv3
tests/test_notebooks.py::test_a_run_without_labels_is_told_apart
tests/test_s3_runs.py::test_masks_and_counts_equal_those_of_a_folder[list
tests/test_s3_runs.py::test_masks_and_counts_equal_those_of_a_folder[parquet
tests/test_scale.py::test_a_run_and_its_rerun
tests/test_voc.py::test_a_few_images_score_as_the_independent_script_says[dm05-int8-letterbox
tests/test_voc.py::test_a_few_images_score_as_the_independent_script_says[dm05-int8-pad
tests/test_voc.py::test_a_few_images_score_as_the_independent_script_says[int8
tests/test_voc.py::test_scores_are_enlarged_nearly_as_well_as_to_the_source_size
"""


def mark_further_cases(items: list[pytest.Item], *, are_all: bool) -> None:
    """Mark the further cases `slow`.

    Raises:
        UsageError: a line fits no test, though all tests were collected.
    """
    by_id = [(item.nodeid, item) for item in items]  # pytest puts an id together each time
    for beginning in FURTHER_CASES.strip().splitlines():
        further = [item for name, item in by_id if name.startswith(beginning)]
        if are_all and not further:
            raise pytest.UsageError(f"tests/slow.py: no test begins with {beginning}")
        for item in further:
            item.add_marker("slow")
