"""What the numbers of an evaluation are called where people read them; the keys are those of `evaluate --json`."""

PIXELS = ("aupr_sum", "aupr_trapz", "auroc", "fpr95", "best_f1", "best_f1_threshold")
COMPONENTS = ("sIoU_gt", "sIoU_pred", "prec_pred", "f1_mean", "f1_25", "f1_50", "f1_75")
NAMES = {
    "aupr_sum": "AUPR-sum", "aupr_trapz": "AUPR-trapz", "auroc": "AUROC", "fpr95": "FPR95", "best_f1": "best F1",
    "best_f1_threshold": "  at threshold", "sIoU_gt": "sIoU (true)", "sIoU_pred": "sIoU (predicted)",
    "prec_pred": "PPV", "f1_mean": "F1*", "f1_25": "F1 at .25", "f1_50": "F1 at .50", "f1_75": "F1 at .75",
}  # fmt: skip
