// One AdamW step: Loshchilov and Hutter, "Decoupled weight decay regularization" (2019), in the order of operations
// of PyTorch's AdamW.

// `rate` is the learning rate / (1 − β₁ᵗ), `correction` √(1 − β₂ᵗ), `decay` what weights are multiplied by first,
// `clip` what gradients are multiplied by first. The gradient is cleared.
extern "C" __global__ void adamw(
    float* weights, float* first, float* second, float* gradient, long long count, float beta1, float beta2,
    float epsilon, float rate, float correction, float decay, float clip
) {
    const long long index = 4 * global_place();
    Four weight = read_four(weights, index, count), slope = read_four(gradient, index, count);
    Four mean = read_four(first, index, count), square = read_four(second, index, count);
    for (int place = 0; place < 4; place++) {
        const float clipped = slope.at[place] * clip;
        mean.at[place] += (1.0f - beta1) * (clipped - mean.at[place]);
        square.at[place] = square.at[place] * beta2 + (1.0f - beta2) * clipped * clipped;
        const float step = mean.at[place] / (sqrtf(square.at[place]) / correction + epsilon);
        weight.at[place] = weight.at[place] * decay - rate * step;
        slope.at[place] = 0.0f;
    }
    write_four(weights, index, count, weight);
    write_four(gradient, index, count, slope);
    write_four(first, index, count, mean);
    write_four(second, index, count, square);
}
