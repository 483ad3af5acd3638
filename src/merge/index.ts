import type { MergeMethod } from "./method.ts";
import { arceeFusion } from "./methods/arcee-fusion.ts";
import { breadcrumbs, breadcrumbsTies } from "./methods/breadcrumbs.ts";
import { dareLinear, dareTies } from "./methods/dare.ts";
import { della, dellaLinear } from "./methods/della.ts";
import { isoC, isoCts } from "./methods/isotropic.ts";
import { karcher } from "./methods/karcher.ts";
import { layers } from "./methods/layers.ts";
import { linear } from "./methods/linear.ts";
import { modelStock } from "./methods/model-stock.ts";
import { multislerp } from "./methods/multislerp.ts";
import { nearswap } from "./methods/nearswap.ts";
import { nuslerp } from "./methods/nuslerp.ts";
import { passthrough } from "./methods/passthrough.ts";
import { ram, ramPlus } from "./methods/ram.ts";
import { sce } from "./methods/sce.ts";
import { segments } from "./methods/segments.ts";
import { slerp } from "./methods/slerp.ts";
import { taskArithmetic } from "./methods/task-arithmetic.ts";
import { ties } from "./methods/ties.ts";
import { tsvm, tsvmReweighted } from "./methods/tsvm.ts";
import { wudi } from "./methods/wudi.ts";

/** Every merge method by its name in recipes. One line per method; contract tests, help and docs read this. */
export const mergeMethods = {
  linear,
  slerp,
  nuslerp,
  multislerp,
  karcher,
  task_arithmetic: taskArithmetic,
  ties,
  dare_linear: dareLinear,
  dare_ties: dareTies,
  della,
  della_linear: dellaLinear,
  breadcrumbs,
  breadcrumbs_ties: breadcrumbsTies,
  model_stock: modelStock,
  sce,
  nearswap,
  arcee_fusion: arceeFusion,
  ram,
  ramplus_tl: ramPlus,
  tsvm,
  tsvm_reweighted: tsvmReweighted,
  iso_c: isoC,
  iso_cts: isoCts,
  wudi,
  passthrough,
  layers,
  segments,
} as const satisfies Record<string, MergeMethod>;
