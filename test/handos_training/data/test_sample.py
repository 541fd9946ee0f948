"""A batch gives back the samples that it was made of."""

from dataclasses import fields

import torch
from hand_samples import labelled_sample

from handos_training.data.sample import HandLabels, collate, empty_labels


def test_a_batch_gives_back_its_samples() -> None:
    first, last = labelled_sample(), labelled_sample()
    nobody = first.replace(hands=empty_labels(0), name='nobody', all_hands_labelled=False)
    batch = collate([first, nobody, last])
    assert batch.counts == [len(first.hands), 0, len(last.hands)]
    assert batch.image_index.tolist() == [0] * len(first.hands) + [2] * len(last.hands)
    for i, sample in enumerate((first, nobody, last)):
        again = batch.sample(i)
        again.check()
        assert (again.name, again.all_hands_labelled) == (sample.name, sample.all_hands_labelled)
        for field in fields(HandLabels):
            assert torch.equal(getattr(again.hands, field.name), getattr(sample.hands, field.name))
    batch.hands_of(2).is_left[0] = ~last.hands.is_left[0]
    assert batch.hands.is_left[len(first.hands)] != last.hands.is_left[0]  # a view
