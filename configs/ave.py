"""The paper's setting in full, on prepared AVE clips, for GPUs or TPUs. The 28 categories come with the data.

  stajax prepare ave --root AVE_Dataset --out data/ave
  stajax weights fetch vgg16 --out .
  stajax weights fetch vggsound-netvlad --out .
  python -m stajax.train --config configs/ave.py --data.path data/ave \
    --init visual=vgg16-397923af.pth --init sound=I.pth.tar

The networks begin with the weights of VGG-16 (ImageNet) and of VGGSound's ResNet-18, as in the paper (§3.3). A § names
a section of the paper. All other values are defaults of `stajax.config`, which were chosen for this setting.

STANet, the conference version, whose one student STA learns from SCAM: the same with `--students.learn-from scam`.
"""

from stajax.config import Config, Data, Maps, Network, Optimizer, Training

# §6.1 gives the rate of the students. The rate of the classifiers, the decay, and the multipliers for weights and
# biases (of the pretrained VGG-16, and of all that is new) are those of the code that the authors released.
_OPTIMIZER = Optimizer(
  name="sgd", learning_rate=1e-3, momentum=0.9, weight_decay=1e-4, multipliers=(1.0, 2.0, 10.0, 20.0)
)
_STUDENT_OPTIMIZER = _OPTIMIZER.model_copy(update={"learning_rate": 5e-5})

# §6.1 gives sizes and batches, but no lengths. Here every network sees some 500,000 fragments, one and a half times as
# many as the 4,097 clips of AVE's 4,143 sequences have frames at 8 a second.
_COARSE = {"size": 256, "batch": 20, "steps": 30_000, "optimizer": _OPTIMIZER}
_FINE = {"size": 356, "batch": 3, "steps": 150_000, "optimizer": _OPTIMIZER}
_PLUS = {"size": 256, "batch": 16, "steps": 30_000, "optimizer": _OPTIMIZER}
_STUDENT = {"size": 356, "batch": 3, "steps": 150_000, "optimizer": _STUDENT_OPTIMIZER}

config = Config(
  name="ave",
  data=Data(source="records", path="data/ave", rate=8.0),
  # §3.3: VGG-16 without normalisation, as its ImageNet weights need it, and the VGGSound network. §4.3: m steps.
  network=Network(
    width=1.0,
    norm="none",
    audio_width=1.0,
    audio_norm="batch",
    audio_pooling="netvlad",
    reasoning_steps=3,
  ),
  # §3.2: the coarse stage sees whole frames. §3.3: the switch is an SA network, and the tagger gives its labels.
  s_coarse=Training(**_COARSE),
  st_coarse=Training(**_COARSE),
  tagger=Training(**_COARSE),
  switch=Training(**_COARSE),
  sa_coarse=Training(**_COARSE),
  # §3.2: the fine stage sees crops.
  s=Training(**_FINE, start=("s_coarse",)),
  st=Training(**_FINE, start=("st_coarse",)),
  sa=Training(**_FINE, start=("sa_coarse",)),
  # §4.3: these networks are built on their branches. They see whole frames, so they start from the coarse ones.
  s_plus=Training(**_PLUS, start=("s_coarse",)),
  st_plus=Training(**_PLUS, start=("st_coarse",)),
  sa_plus=Training(**_PLUS, start=("sa_coarse",)),
  # §5: the students learn the pseudo-fixations. Table 5 counts STA+ at a size of 256.
  sta=Training(**_STUDENT),
  sta_plus=Training(**_STUDENT, start=("sta",)),
  # The protocol blurs maps at their own size, so those that are made from tags have the students' size.
  maps=Maps(size=_STUDENT["size"]),
)
