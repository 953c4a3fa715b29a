"""The training loop: an iteration is an optimizer step, and no fault costs more than the work since a checkpoint.

Whatever the batch is divided over (processes, accumulated passes, loader workers), step t sees the same windows,
augmented alike, and a resumed run goes on with step t + 1 as if it had never stopped. On a signal the step at hand
is finished and kept. A loss that is no number ends all processes before it reaches the weights.
"""

import math
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as torch_dist
from mmengine.dist import (
    all_gather_object,
    all_reduce_dict,
    barrier,
    broadcast_object_list,
    get_rank,
    is_distributed,
    is_main_process,
)
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import FUNCTIONS, LOOPS
from mmengine.runner import BaseLoop, IterBasedTrainLoop
from torch.nn.utils import clip_grad_norm_

from .datasets.windows import WindowSampler
from .errors import OutOfMemory, UserError
from .faults import explain, is_out_of_memory, lack_of_memory, peak_memory
from .files import write_atomic
from .signals import StopRequest
from .work_dir import newest_checkpoint_step, save_checkpoint

VALIDATED = 'validated'  # in a work dir: the step of the last validation that was over


@LOOPS.register_module()
class StepLoop(IterBasedTrainLoop):
    """mmengine's loop over optimizer steps.

    Args:
        max_iters: steps.
        val_interval: steps between validations; there is one after the last step too.
        accumulate: passes that a process divides its share of the batch into; their gradients are averaged.

    Raises:
        UserError: a loss or gradient that is no number, with the cases of the batch; a loader's worker that died.
        OutOfMemory: a step did not fit.
        Stopped: by a signal, after a checkpoint; or what the signal's earlier handler raises.
    """

    def __init__(self, runner, dataloader, max_iters: int, val_interval: int, accumulate: int = 1):
        BaseLoop.__init__(self, runner, dataloader)  # the class between starts the loader's workers already here
        self._max_iters, self._max_epochs, self._iter, self._epoch = max_iters, 1, 0, 0
        self.val_begin, self.val_interval, self.stop_training = 1, val_interval, False
        self.accumulate = accumulate
        self._batch: dict = {}
        self.metrics: dict[str, float] = {}  # of the last validation
        self._to_stop = False
        runner.visualizer.dataset_meta = self.dataloader.dataset.metainfo
        if not isinstance(self.dataloader.sampler, WindowSampler):
            raise UserError(f'train_dataloader.sampler is {type(self.dataloader.sampler).__name__}; the training '
                            'loop needs WindowSampler, whose shuffle can be gone on with')

    def run(self) -> torch.nn.Module:
        runner = self.runner
        runner.call_hook('before_train')
        runner.call_hook('before_train_epoch')
        runner.optim_wrapper.initialize_count_status(
            runner.model, self._iter * self.accumulate, self._max_iters * self.accumulate)
        self._check_before_updates(runner.optim_wrapper)
        sampler = self.dataloader.sampler
        sampler.first = self._iter * self.dataloader.batch_size * sampler.processes
        with StopRequest() as self._request:
            try:
                if self._iter and self._validation_is_due() and not self._was_validated():
                    self._validate()
                batches = iter(self.dataloader)
                while self._iter < self._max_iters and not self.stop_training:
                    runner.model.train()
                    self.run_iter(next(batches))
                    if self._to_stop or (self._request.received and not is_distributed()):
                        save_checkpoint(runner, self._iter)
                        barrier()  # a launcher ends the others once the first has gone
                        self._request.deliver()
                    if self._validation_is_due():
                        self._validate()
            except Exception as error:
                if (explained := self._explain(error)) is error:
                    raise
                raise explained from error
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model

    def run_iter(self, data_batch: dict[str, Sequence]) -> None:
        """One optimizer step on this process's share of the batch."""
        runner, self._batch = self.runner, data_batch
        # dropout and drop path, a function of seed, step and process
        seed = np.random.SeedSequence((runner.seed, self._iter, get_rank())).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(seed) >> 1)
        runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=data_batch)
        passes = [runner.model.train_step(part, optim_wrapper=runner.optim_wrapper)
                  for part in _divide(data_batch, self.accumulate)]
        outputs = {name: sum(each[name].detach() for each in passes) / len(passes) for name in passes[0]}
        all_reduce_dict(outputs, op='mean')  # what is logged is the batch's, not a share's
        runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def _validation_is_due(self) -> bool:
        return self.runner.val_loop is not None and (
            self._iter % self.val_interval == 0 or self._iter == self._max_iters)

    def _validate(self) -> None:
        if newest_checkpoint_step(self.runner) != self._iter:
            save_checkpoint(self.runner, self._iter)
        try:
            with self._request.at_once():
                self.metrics = self.runner.val_loop.run()
            if is_main_process():
                write_atomic(Path(self.runner.work_dir) / VALIDATED, str(self._iter))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise lack_of_memory(f'in the evaluation after step {self._iter}', 'val_dataloader') from error

    def _was_validated(self) -> bool:
        """Whether this step's validation was over before; the last step's figures are wanted again."""
        path = Path(self.runner.work_dir) / VALIDATED
        told = [path.is_file() and path.read_text() == str(self._iter)]
        broadcast_object_list(told)  # as the main process has it
        return told[0] and self._iter < self._max_iters

    def _check_before_updates(self, optim_wrapper) -> None:
        """Every process learns of a loss that is no number, or of a signal, before gradients are exchanged."""
        update, step = optim_wrapper.update_params, optim_wrapper.step

        def checked_step(**kwargs) -> None:
            parameters = [p for group in optim_wrapper.param_groups for p in group['params']]
            clip_grad_norm_(parameters, math.inf, error_if_nonfinite=True)
            step(**kwargs)

        if isinstance(optim_wrapper, AmpOptimWrapper):
            pass  # its scaler skips such steps
        elif getattr(optim_wrapper, 'clip_func', None) is clip_grad_norm_:  # takes the norm anyway
            optim_wrapper.clip_grad_kwargs |= dict(error_if_nonfinite=True)
        else:
            optim_wrapper.step = checked_step

        def checked_update(loss: torch.Tensor, *args, **kwargs) -> None:
            value = float(loss.detach())
            flags = torch.tensor([not math.isfinite(value), bool(self._request.received)], dtype=torch.float32,
                                 device=loss.device)
            if is_distributed():
                torch_dist.all_reduce(flags, torch_dist.ReduceOp.MAX)
            not_finite, to_stop = flags.tolist()
            self._to_stop = bool(to_stop)
            if not_finite:
                self._refuse('loss', None if math.isfinite(value) else value)
            try:
                update(loss, *args, **kwargs)
            except RuntimeError as error:
                if 'non-finite' not in str(error):
                    raise
                self._refuse('gradient', math.nan)

        optim_wrapper.update_params = checked_update

    def _refuse(self, what: str, value: float | None) -> None:
        """`value` is None in a process whose own share was fine."""
        windows = {f'{sample.case} slice {sample.slice}': bool(window.isfinite().all())
                   for sample, window in zip(self._batch['data_samples'], self._batch['inputs'], strict=True)}
        shares = [share for share in all_gather_object((value, windows)) if share[0] is not None]
        batch = {window: fine for _, windows in shares for window, fine in windows.items()}
        spoilt = [window for window, fine in batch.items() if not fine]  # norms spread it over the whole batch
        step = newest_checkpoint_step(self.runner)
        raise UserError(
            f'the {what} became {shares[0][0]} in step {self._iter + 1}, in a batch of {", ".join(batch)}'
            f'{" (spoilt: " + ", ".join(spoilt) + ")" if spoilt else ""}; it did not reach the weights, and '
            f'{f"the checkpoint of step {step}" if step else "no checkpoint"} is from before; look at these '
            'cases, or try a lower experiment.lr')

    def _explain(self, error: Exception) -> Exception:
        windows = len(self._batch.get('inputs', ())) // self.accumulate
        if 'more than 1 value per channel' in str(error):
            return UserError('a pass of one window: a batch norm behind a pooling to one value, as UPerHead has, '
                             'needs two; take a smaller experiment.accumulate or a larger experiment.batch')
        if not is_out_of_memory(error):
            loops = filter(None, (self, self.runner.val_loop))
            return explain(error, [loop.dataloader for loop in loops])
        facts = dict(step=self._iter + 1, windows=windows, accumulate=self.accumulate,
                     peak_memory_mib=round(peak_memory() / 2**20))
        remedy = (f'halve them: experiment.accumulate={2 * self.accumulate}' if windows > 2 else
                  'batch norms need as many; try experiment.activation_checkpointing=True or '
                  'experiment.precision=bf16')
        return OutOfMemory(f'out of memory in step {facts["step"]}: passes of {facts["windows"]} windows, peak '
                           f'{facts["peak_memory_mib"]} MiB; {remedy}', **facts)


def _divide(batch: dict[str, Sequence], parts: int) -> list[dict[str, Sequence]]:
    size = len(batch['inputs']) // parts
    return [{key: values[i * size:(i + 1) * size] for key, values in batch.items()} for i in range(parts)]


@FUNCTIONS.register_module()
def start_loader_worker(_worker: int) -> None:
    """Signals may reach all processes of a job: the main one decides, and needs its workers until then.

    torchrun and `timeout` send SIGTERM to a process group, and torch wants to end its workers by it: they have a
    group of their own. They leave when their parent is gone.
    """
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
