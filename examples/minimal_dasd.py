"""Direction-Adaptive Self-Distillation (DASD, arXiv 2605.22263), the whole method in one file.

    python examples/minimal_dasd.py

One model plays two roles. The student sees a problem and answers it by sampling. The teacher is the same model with a
reference solution in its prompt; it writes nothing, it only says how likely it finds each token that the student wrote.
A verifier tells right answers from wrong ones, as in GRPO. Each token then gets its own advantage:

    A_t = A_G + beta * omega_t * gap_bar_t

    A_G      the verifier: reward of the rollout against the other rollouts of its problem
    gap_bar  the teacher: log p_teacher - log p_student of this token, > 0 where the teacher would write it more readily
    omega    the direction, from the student's own entropy: > 0 at tokens it is sure of (move toward the teacher), < 0 at
             tokens where it hesitates (move away: keep several ways open instead of copying the one in the reference)

The task is Countdown: make a target from three numbers. The reward is the share of right answers. The default run takes
about a minute on two CPU cores: long enough to see every part work, too short and too noisy (8 new problems a step) to
judge the method by. Nothing here comes from the package dasd, and a test keeps the two in agreement.
"""

import argparse
import random
import re
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

BUNDLED_MODEL = Path(__file__).parent.parent / "src/dasd/assets/countdown-1m"
MAX_NEW_TOKENS = 96


# The task: problems with a reference solution, and a verifier


def calculate(a, operator, b):
    """a operator b in whole numbers; None where a division leaves a remainder."""
    if operator == "/":
        return a // b if b != 0 and a % b == 0 else None
    return {"+": a + b, "-": a - b, "*": a * b}[operator]


def make_problem(rng):
    """A random problem and its reference: ("Use 3 7 8 to make 29.", "3 * 7 = 21, 21 + 8 = 29")."""
    while True:
        numbers = [rng.randint(1, 20) for _ in range(3)]
        left, steps = list(numbers), []
        while len(left) > 1:
            rng.shuffle(left)
            b, a = sorted([left.pop(), left.pop()])
            operator = rng.choice("+-*/")
            result = calculate(a, operator, b)
            if result is None or not 1 <= result <= 99:
                break
            left.append(result)
            steps.append(f"{a} {operator} {b} = {result}")
        if len(steps) == 2 and 10 <= left[0] <= 80:
            return f"Use {' '.join(map(str, numbers))} to make {left[0]}.", ", ".join(steps)


def is_right(problem, completion):
    """Whether the steps after the last "answer:" are true, use every number once, and end at the target."""
    *left, target = map(int, re.findall("[0-9]+", problem))
    _, mark, answer = completion.rpartition("answer:")
    if not mark:
        return False
    for step in answer.strip().removesuffix(".").split(","):
        equation = re.fullmatch(r"([0-9]{1,6}) ?([-+*/]) ?([0-9]{1,6}) ?= ?([0-9]{1,6})", step.strip())
        if equation is None:
            return False
        a, b, result = int(equation[1]), int(equation[3]), int(equation[4])
        if calculate(a, equation[2], b) != result:
            return False
        for number in (a, b):
            if number not in left:
                return False
            left.remove(number)
        left.append(result)
    return left == [target]


# Two roles of one model: they differ in the prompt, and in nothing else


def student_prompt(tokenizer, problem):
    """Token ids of what the student sees."""
    messages = [{"role": "user", "content": problem}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]


def teacher_prompt(tokenizer, problem, reference):
    """Token ids of what the teacher sees: the reference stands in the same message."""
    return student_prompt(tokenizer, f"{problem}\nReference solution: {reference}")


def stack(rows, pad, side):
    """Lists of token ids as one tensor (B, longest), padded on one side, and its mask (1 = token, 0 = padding)."""
    rows = [torch.tensor(row) for row in rows]
    ids = pad_sequence(rows, batch_first=True, padding_value=pad, padding_side=side)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_value=0, padding_side=side)
    return ids, mask


@torch.no_grad()
def generate(model, tokenizer, prompts):
    """One sampled completion for each prompt: lists of token ids, up to and with the end token."""
    ids, mask = stack(prompts, tokenizer.pad_token_id, "left")  # (B, P)
    output = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # (B, P + T)
    completions = []
    for row in output[:, ids.shape[1] :].tolist():
        end = row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else len(row)
        completions.append(row[:end])
    return completions


def score(model, prompts, completions, pad):
    """Log-probs and entropies of the completions' own token ids after these prompts, in nats, and their mask: all (B, T)."""
    prompt_ids, prompt_mask = stack(prompts, pad, "left")  # (B, P)
    completion_ids, completion_mask = stack(completions, pad, "right")  # (B, T)
    ids = torch.cat([prompt_ids, completion_ids], dim=1).to(model.device)  # (B, P + T)
    mask = torch.cat([prompt_mask, completion_mask], dim=1).to(model.device)
    length = completion_ids.shape[1]
    # The logits at position t predict token t + 1: drop the last, and start at the prompt's last token.
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=length + 1).logits[:, :-1]  # (B, T, V)
    all_logps = logits.log_softmax(dim=-1)  # (B, T, V)
    logps = all_logps.gather(-1, ids[:, -length:, None])[:, :, 0]  # (B, T)
    entropies = -(all_logps.exp() * all_logps).sum(dim=-1)  # (B, T)
    return logps, entropies, mask[:, -length:]


# The method: one advantage for each token


def group_advantages(rewards, group_size):
    """The verifier's advantage of each rollout (B,), as in GRPO: its reward against the rollouts of the same problem."""
    groups = rewards.view(-1, group_size)  # (problems, group_size)
    centred = groups - groups.mean(dim=1, keepdim=True)
    return (centred / (groups.std(dim=1, keepdim=True) + 1e-4)).view(-1)


@torch.no_grad()
def dasd_advantages(student_logps, teacher_logps, entropies, mask, advantages, beta, rho):
    """Advantages (B, T) and directions omega (B, T), 0 at padding, from scores (B, T) and the verifier's advantages (B,).

    beta weighs the teacher against the verifier: 0 is GRPO. rho is the entropy quantile above which they repel.
    """
    token_advantages, omegas = torch.zeros_like(student_logps), torch.zeros_like(student_logps)
    for i, valid in enumerate(mask.bool()):  # all statistics are of one rollout
        gap = (teacher_logps[i] - student_logps[i])[valid]  # (tokens of rollout i,)
        entropy = entropies[i][valid]
        if len(gap) == 0:
            continue
        # Teacher: the gap in units of its typical size. Never centred, that would flip signs. What rounding can make is 0.
        likely = torch.minimum(student_logps[i], teacher_logps[i])[valid].exp()
        noise = torch.finfo(torch.float32).eps * (32 + 528 * (1 - likely))
        said = (gap.abs() > noise) & (gap.abs() > 3 * noise).any()
        gap_bar = (gap / torch.maximum(gap.abs().quantile(0.5), noise)).clamp(-5, 5) * said
        # Direction: tau, the quantile rho, parts the uncertain tokens from the others; the distance to it is in units of sigma.
        tau = entropy.quantile(rho)
        sigma = (entropy - entropy.mean()).abs().mean().clamp(min=1e-12)
        route = torch.tanh((tau - entropy) / sigma)  # > 0: attract, < 0: repel
        gate = torch.sigmoid(gap_bar.abs() - 1)  # gaps that are small against the typical one count less
        omega = route * gate
        token_advantages[i, valid] = advantages[i] + beta * omega * gap_bar
        omegas[i, valid] = omega
    return token_advantages, omegas


def policy_loss(logps, token_advantages, mask):
    """Policy gradient, averaged over the tokens of a rollout and then over rollouts (what TRL calls loss_type="grpo")."""
    ratio = torch.exp(logps - logps.detach())  # 1 in value: the rollouts are fresh. Its gradient is that of logps.
    per_token = -ratio * token_advantages * mask  # (B, T)
    return (per_token.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()


# Training


def update(model, optimizer, prompts, told_prompts, completions, advantages, pad, beta, rho):
    """One optimisation step on these rollouts. Returns the share of tokens that were repelled."""
    student_logps, entropies, mask = score(model, prompts, completions, pad)
    with torch.no_grad():  # the teacher is the live policy, and no gradient flows through it
        teacher_logps, _, _ = score(model, told_prompts, completions, pad)
    token_advantages, omega = dasd_advantages(student_logps, teacher_logps, entropies, mask, advantages, beta, rho)
    loss = policy_loss(student_logps, token_advantages, mask)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return ((omega < 0).sum() / mask.sum()).item()


def main():
    parser = argparse.ArgumentParser(description="DASD on Countdown, in one file.")
    parser.add_argument("--model", default=str(BUNDLED_MODEL), help="folder of a chat model whose tokenizer has a pad token")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--problems", type=int, default=8, help="problems a step")
    parser.add_argument("--group-size", type=int, default=16, help="rollouts a problem")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--beta", type=float, default=0.1, help="weight of the teacher; 0 is GRPO")
    parser.add_argument("--rho", type=float, default=0.8, help="entropy quantile above which tokens are repelled")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).to(device)
    model.eval()  # no dropout: its noise would be taken for the teacher's opinion
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.0)

    for step in range(1, args.steps + 1):
        problems = [make_problem(rng) for _ in range(args.problems)]
        rows = [problem for problem in problems for _ in range(args.group_size)]  # B = problems * group_size rollouts
        prompts = [student_prompt(tokenizer, text) for text, _ in rows]
        told_prompts = [teacher_prompt(tokenizer, text, reference) for text, reference in rows]

        completions = generate(model, tokenizer, prompts)
        texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
        rewards = torch.tensor([float(is_right(row[0], text)) for row, text in zip(rows, texts, strict=True)], device=device)
        advantages = group_advantages(rewards, args.group_size)
        pad = tokenizer.pad_token_id
        repelled = update(model, optimizer, prompts, told_prompts, completions, advantages, pad, args.beta, args.rho)

        length = sum(map(len, completions)) / len(completions)
        print(f"step {step:3d}  reward {rewards.mean():.3f}  length {length:.1f}  repelled {repelled:.3f}", flush=True)


if __name__ == "__main__":
    main()
