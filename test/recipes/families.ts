/** Tensor names and shapes of real architectures, built by rule: the structure is what the tests are about. */

/** Llama layout: no biases, RMSNorm, untied head. */
export function llamaShapes(layers: number, hidden = 96, mlp = 160, vocabulary = 512) {
  const shapes: Record<string, number[]> = {
    "model.embed_tokens.weight": [vocabulary, hidden],
  };
  for (let i = 0; i < layers; i++) {
    const block = `model.layers.${i}`;
    shapes[`${block}.self_attn.q_proj.weight`] = [hidden, hidden];
    shapes[`${block}.self_attn.k_proj.weight`] = [hidden / 2, hidden];
    shapes[`${block}.self_attn.v_proj.weight`] = [hidden / 2, hidden];
    shapes[`${block}.self_attn.o_proj.weight`] = [hidden, hidden];
    shapes[`${block}.mlp.gate_proj.weight`] = [mlp, hidden];
    shapes[`${block}.mlp.up_proj.weight`] = [mlp, hidden];
    shapes[`${block}.mlp.down_proj.weight`] = [hidden, mlp];
    shapes[`${block}.input_layernorm.weight`] = [hidden];
    shapes[`${block}.post_attention_layernorm.weight`] = [hidden];
  }
  shapes["model.norm.weight"] = [hidden];
  shapes["lm_head.weight"] = [vocabulary, hidden];
  return shapes;
}

/** BERT layout with a pooler; `labels` adds a classification head. */
export function bertShapes(layers: number, labels?: number, hidden = 64, mlp = 128) {
  const shapes: Record<string, number[]> = {
    "bert.embeddings.word_embeddings.weight": [512, hidden],
    "bert.embeddings.position_embeddings.weight": [64, hidden],
    "bert.embeddings.token_type_embeddings.weight": [1, hidden],
    "bert.embeddings.LayerNorm.weight": [hidden],
    "bert.embeddings.LayerNorm.bias": [hidden],
  };
  const dense = (name: string, output: number, input: number) => {
    shapes[`${name}.weight`] = [output, input];
    shapes[`${name}.bias`] = [output];
  };
  for (let i = 0; i < layers; i++) {
    const block = `bert.encoder.layer.${i}`;
    for (const part of ["query", "key", "value"]) {
      dense(`${block}.attention.self.${part}`, hidden, hidden);
    }
    dense(`${block}.attention.output.dense`, hidden, hidden);
    dense(`${block}.intermediate.dense`, mlp, hidden);
    dense(`${block}.output.dense`, hidden, mlp);
    for (const norm of ["attention.output.LayerNorm", "output.LayerNorm"]) {
      shapes[`${block}.${norm}.weight`] = [hidden];
      shapes[`${block}.${norm}.bias`] = [hidden];
    }
  }
  dense("bert.pooler.dense", hidden, hidden);
  if (labels !== undefined) dense("classifier", labels, hidden);
  return shapes;
}

/** The plain MLP of the digit families: 64-64-64-64-10. */
export function mlpShapes() {
  const shapes: Record<string, number[]> = {};
  for (let i = 0; i < 4; i++) {
    shapes[`layers.${i}.weight`] = [i === 3 ? 10 : 64, 64];
    shapes[`layers.${i}.bias`] = [i === 3 ? 10 : 64];
  }
  return shapes;
}

/** The small convolutional net with BatchNorm; `counters` adds what only a PyTorch checkpoint stores. */
export function cnnShapes(counters: boolean) {
  const shapes: Record<string, number[]> = {
    "conv1.weight": [16, 1, 3, 3],
    "conv2.weight": [32, 16, 3, 3],
    "fc.weight": [10, 128],
    "fc.bias": [10],
  };
  for (const [norm, width] of [
    ["bn1", 16],
    ["bn2", 32],
  ] as const) {
    for (const array of ["weight", "bias", "running_mean", "running_var"]) {
      shapes[`${norm}.${array}`] = [width];
    }
    if (counters) shapes[`${norm}.num_batches_tracked`] = [];
  }
  return shapes;
}

/** GPT-2 layout, with or without the "transformer." prefix. */
export function gpt2Names(layers: number, prefix = "transformer."): string[] {
  const names = ["wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"];
  for (let i = 0; i < layers; i++) {
    for (const module of ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"]) {
      names.push(`h.${i}.${module}.weight`, `h.${i}.${module}.bias`);
    }
  }
  return names.map((name) => `${prefix}${name}`);
}

/** T5 layout: two stacks, each block a list of sub-layers. */
export function t5Names(layers: number): string[] {
  const names = ["shared.weight", "lm_head.weight"];
  for (const side of ["encoder", "decoder"]) {
    names.push(`${side}.final_layer_norm.weight`);
    names.push(`${side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight`);
    for (let i = 0; i < layers; i++) {
      const block = `${side}.block.${i}`;
      for (const part of ["q", "k", "v", "o"]) {
        names.push(`${block}.layer.0.SelfAttention.${part}.weight`);
        if (side === "decoder") names.push(`${block}.layer.1.EncDecAttention.${part}.weight`);
      }
      names.push(`${block}.layer.0.layer_norm.weight`);
      const feed = side === "decoder" ? 2 : 1;
      names.push(`${block}.layer.${feed}.DenseReluDense.wi.weight`);
      names.push(`${block}.layer.${feed}.DenseReluDense.wo.weight`);
      names.push(`${block}.layer.${feed}.layer_norm.weight`);
    }
  }
  return names;
}
