"""One of nnU-Net's trainers with a seed, and with epochs and iterations that the environment says.

nnunetv2 finds it by the variable nnUNet_extTrainer, in an environment that this project is not installed in. Every
epoch has a seed of its own, so that a training that was interrupted goes on as if it had not been; with worker
processes (nnUNet_n_proc_DA) that augment, which of them is first is chance all the same.
"""

import os
import random
import resource
from os.path import join

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import save_json
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

# nnU-Net's commands take all cores of a CPU, other runs of a grid on it or not; they import this after that
if 'OMP_NUM_THREADS' in os.environ:
    torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))

# Trainers with a warm-up read their own checkpoints as torch does by default, since 2.6 without anything of numpy
if hasattr(torch.serialization, 'add_safe_globals'):
    torch.serialization.add_safe_globals([np.float64().__reduce__()[0], np.dtype, *(
        type(np.dtype(name)) for name in ('float32', 'float64'))])


class nnUNetTrainerSeeded(recursive_find_trainer_class_by_name(os.environ.get('nnUNet_trainer', 'nnUNetTrainer'))):
    """Of the trainer that nnUNet_trainer names. Reads nnUNet_seed, nnUNet_epochs and nnUNet_iterations; leaves
    cost.json beside the final checkpoint."""

    def __init__(self, plans, configuration, fold, dataset_json, device):  # nnU-Net keeps them by these names
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.seed, self.num_epochs, self.num_iterations_per_epoch = (
            int(os.environ[f'nnUNet_{name}']) for name in ('seed', 'epochs', 'iterations'))
        self.num_val_iterations_per_epoch = max(self.num_iterations_per_epoch // 5, 1)  # 50 of 250, as nnU-Net
        self.save_every = min(self.save_every, max(self.num_epochs // 10, 1))
        if hasattr(self, 'warmup_duration_whole_net'):  # 50 epochs of 1000, in trainers that have it
            self.warmup_duration_whole_net = min(self.warmup_duration_whole_net, max(self.num_epochs // 20, 1))

    def initialize(self):
        self._set_seed()
        super().initialize()

    def on_epoch_start(self):
        self._set_seed()
        super().on_epoch_start()

    def _set_seed(self):
        seed = int(np.random.SeedSequence([self.seed, self.current_epoch]).generate_state(1)[0])
        for set_seed in (random.seed, np.random.seed, torch.manual_seed):
            set_seed(seed)

    def save_checkpoint(self, filename: str):
        super().save_checkpoint(f'{filename}.part')  # a kill leaves the one before whole
        os.replace(f'{filename}.part', filename)

    def on_train_end(self):
        if self.device.type == 'cuda':
            peak, memory_of = torch.cuda.max_memory_allocated(), 'GPU, training'
        else:
            peak, memory_of = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, 'training process'
        parameters = sum(weight.numel() for weight in self.network.parameters())
        save_json(dict(parameters=parameters, peak_memory_mib=round(peak / 2**20), memory_of=memory_of),
                  join(self.output_folder, 'cost.json'))
        super().on_train_end()

    def perform_actual_validation(self, save_probabilities: bool = False):
        """Not: figures are of the evaluated cases, which the grid scores."""
